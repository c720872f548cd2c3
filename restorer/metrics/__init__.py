"""How good is a result: numbers in the field's conventions, and the command that takes them over a folder."""
