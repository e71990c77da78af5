"""Work that workflows ask of people: what is asked, and what people do with it."""
