"""A bundle behind HTTP: FastAPI, one request gate, a page. Needs the extra `http`."""
