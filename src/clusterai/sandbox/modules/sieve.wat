;; Counts the primes below 65536 × argv[1], a block of 65536 numbers a step: the sample of a job that proves itself.
;;
;; What it remembers between steps lies in its memory (the base primes) and in two globals (blocks, count), so that any
;; step can be run again by somebody else from the state before it. The last step prints the count and writes it to
;; out/primes.txt.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))

  (memory (export "memory") 3)
  (data (i32.const 64) "out/primes.txt")
  (global $blocks (mut i32) (i32.const 1))
  (global $count (mut i64) (i64.const 0))

  ;; 0 argc, 4 size of arguments, 16 vector, 24 result, 96 digits, 1024 pointers, 4096 arguments,
  ;; 65536 base flags (1 = composite), 131072 block flags

  (func (export "_initialize") (local $at i32) (local $n i32) (local $p i32) (local $q i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.or (i32.gt_u (i32.load (i32.const 0)) (i32.const 256))
                (i32.gt_u (i32.load (i32.const 4)) (i32.const 16384)))
      (then (unreachable)))
    (drop (call $args_get (i32.const 1024) (i32.const 4096)))
    (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1))
      (then
        (local.set $at (i32.load (i32.const 1028)))
        (block $end
          (loop $digit
            (br_if $end (i32.lt_u (i32.load8_u (local.get $at)) (i32.const 48)))
            (br_if $end (i32.gt_u (i32.load8_u (local.get $at)) (i32.const 57)))
            (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10))
                                   (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $digit)))
        (if (i32.or (i32.eqz (local.get $n)) (i32.gt_u (local.get $n) (i32.const 65535)))
          (then (unreachable)))
        (global.set $blocks (local.get $n))))
    (i32.store8 (i32.const 65536) (i32.const 1))
    (i32.store8 (i32.const 65537) (i32.const 1))
    (local.set $p (i32.const 2))
    (loop $primes
      (if (i32.eqz (i32.load8_u (i32.add (i32.const 65536) (local.get $p))))
        (then
          (local.set $q (i32.mul (local.get $p) (local.get $p)))
          (block $done
            (loop $multiples
              (br_if $done (i32.ge_u (local.get $q) (i32.const 65536)))
              (i32.store8 (i32.add (i32.const 65536) (local.get $q)) (i32.const 1))
              (local.set $q (i32.add (local.get $q) (local.get $p)))
              (br $multiples)))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (br_if $primes (i32.lt_u (local.get $p) (i32.const 256)))))

  ;; Returns 0 while there is more to do, 1 when all is done.
  (func (export "clusterai_step") (param $step i64) (result i32)
    (local $low i64) (local $p i64) (local $q i64) (local $i i32)
    (if (i64.ge_u (local.get $step) (i64.extend_i32_u (global.get $blocks)))
      (then (call $finish) (return (i32.const 1))))
    (local.set $low (i64.mul (local.get $step) (i64.const 65536)))
    (if (i64.eqz (local.get $low))
      (then (memory.copy (i32.const 131072) (i32.const 65536) (i32.const 65536)))
      (else
        (memory.fill (i32.const 131072) (i32.const 0) (i32.const 65536))
        (local.set $p (i64.const 2))
        (block $done
          (loop $primes
            (br_if $done (i64.ge_u (local.get $p) (i64.const 65536)))
            (br_if $done (i64.ge_u (i64.mul (local.get $p) (local.get $p)) (i64.add (local.get $low) (i64.const 65536))))
            (if (i32.eqz (i32.load8_u (i32.add (i32.const 65536) (i32.wrap_i64 (local.get $p)))))
              (then
                ;; The first multiple of p that lies in this block; p × p lies below it or in it.
                (local.set $q (i64.mul (local.get $p)
                  (i64.div_u (i64.add (local.get $low) (i64.sub (local.get $p) (i64.const 1))) (local.get $p))))
                (if (i64.lt_u (local.get $q) (i64.mul (local.get $p) (local.get $p)))
                  (then (local.set $q (i64.mul (local.get $p) (local.get $p)))))
                (local.set $i (i32.wrap_i64 (i64.sub (local.get $q) (local.get $low))))
                (block $out
                  (loop $multiples
                    (br_if $out (i32.ge_u (local.get $i) (i32.const 65536)))
                    (i32.store8 (i32.add (i32.const 131072) (local.get $i)) (i32.const 1))
                    (local.set $i (i32.add (local.get $i) (i32.wrap_i64 (local.get $p))))
                    (br $multiples)))))
            (local.set $p (i64.add (local.get $p) (i64.const 1)))
            (br $primes)))))
    (local.set $i (i32.const 0))
    (loop $count
      (global.set $count (i64.add (global.get $count)
        (i64.extend_i32_u (i32.eqz (i32.load8_u (i32.add (i32.const 131072) (local.get $i)))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $count (i32.lt_u (local.get $i) (i32.const 65536))))
    (i32.const 0))

  (func $finish (local $at i32) (local $n i64)
    (local.set $at (i32.const 127))
    (i32.store8 (local.get $at) (i32.const 10))
    (local.set $n (global.get $count))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
      (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $n) (i64.const 0))))
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (i32.sub (i32.const 128) (local.get $at)))
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 14) (i32.const 9)
          (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 24))
      (then (unreachable)))
    (local.set $at (i32.load (i32.const 24)))
    (drop (call $fd_write (local.get $at) (i32.const 16) (i32.const 1) (i32.const 24)))
    (drop (call $fd_close (local.get $at)))))
