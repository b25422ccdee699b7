-- Secrets of the installation's own, sealed.
create table secrets (
    name   text primary key,
    sealed text not null
);
