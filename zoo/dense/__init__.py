"""What tasks on maps share: boxes, non-maximum suppression, necks."""
