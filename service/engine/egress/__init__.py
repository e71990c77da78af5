"""Where calls for workflows may go, and the connections that they go over. README.md beside this file has the rules."""
