-- Where the spans of an interaction belong, for whoever takes it up: W3C's traceparent and, after a space, tracestate.
-- Empty where nothing is traced.
alter table interactions add column trace text;
