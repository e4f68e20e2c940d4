"""Scripts, command lines, csv rows and markdown sections of results, as text. Knows nothing about torch or screens."""
