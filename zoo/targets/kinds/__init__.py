"""Zoo's kinds of target, one file each. `zoo.targets` lists them."""
