"""Makes what the pages in docs/ say of models, methods and their combinations out of the code; no part of the installed package."""
