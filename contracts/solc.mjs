#!/usr/bin/env node
// A solc for forge: the same npm compiler that builds the artifacts, behind the two options that forge uses.
import { readFileSync } from "node:fs";
import solc from "solc";

if (process.argv.includes("--version")) {
  console.log("solc, the solidity compiler commandline interface");
  console.log(`Version: ${solc.version().replace("Emscripten.clang", "Linux.g++")}`);
} else if (process.argv.includes("--standard-json")) {
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
} else {
  console.error("only --version and --standard-json");
  process.exit(1);
}
