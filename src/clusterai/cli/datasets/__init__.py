"""What the commands about data sets do: describe and hold a folder, find holders, fetch from all of them at once."""
