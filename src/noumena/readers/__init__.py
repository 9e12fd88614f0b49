"""Reading tables and arrays of any family from files, block by block, checked and never unpickled."""
