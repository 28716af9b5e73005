"""Result files, and `layout`, which knows where they lie."""
