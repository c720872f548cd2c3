"""Find faces in a picture: one file per kind of detector."""
