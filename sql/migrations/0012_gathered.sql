-- Events of which several may be answered as one: 0 while they wait for others, then how many one stands for.
alter table interactions add column gathered int;
