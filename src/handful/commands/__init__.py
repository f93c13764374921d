"""What the commands do, a file each: words in, exit code out. One parse builds the options; two hops to the code."""
