"""The parts the service brings itself: PostgreSQL, Valkey and a language model, run by a parent process."""
