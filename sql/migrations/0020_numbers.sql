-- What happened long ago is found without reading what happened since.
create index numbers_by_hour on numbers using brin (hour);
create index numbers_by_day_by_day on numbers_by_day using brin (day);
