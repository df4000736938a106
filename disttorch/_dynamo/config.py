"""What a script sets for the compiler: kept, and looked at by nobody."""
