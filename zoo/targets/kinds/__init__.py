"""The kinds of target that come with zoo, one file each. `zoo.targets` lists them."""
