"""`benchmark predict`: counts, points and pictures of images, folders and videos."""
