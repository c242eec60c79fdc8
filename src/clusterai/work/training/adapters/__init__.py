"""What touches processes, disks and the network: each thin."""
