"""The shapes of requests and answers, for `openapi.json` alone: nothing is checked by them while it runs."""
