"""Personal data in text: one file recognises and imitates one kind; the file's name is the kind."""
