"""What a task may ask for, how an end is judged, and which system calls a tenant may make: all pure."""
