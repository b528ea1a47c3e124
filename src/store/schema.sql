-- The local store of one bridge. Times are milliseconds since 1970 UTC; keys are SHA-256 of source and id.
--
-- The life of a message, the same for both ways:
--
--   (new) -> claimed -> delivered                     done; a copy that comes later is a duplicate
--               |  \--> answered -> delivered         the system has done it, the reply is not yet published
--               |-----> batched -> delivered          in a batch; its batch sends it
--               |-----> waiting -> claimed ...        in a retry tier (deliver) or in the spool (collect)
--               |-----> dead -> claimed ...           in the dead-letter queue, until it is replayed
--               |            \-> discarded            by a named person
--               \-----> duplicate, nothing            collect only: its event was published before; it asks for no event

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE route (
    n    INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- How many messages were ever taken in: counted for itself, so that the account has two sides.
    taken INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What was pruned from the journal after its time, so that the account still closes.
CREATE TABLE pruned (
    route      INTEGER NOT NULL REFERENCES route (n),
    state      INTEGER NOT NULL,
    messages   INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    PRIMARY KEY (route, state)
) STRICT, WITHOUT ROWID;

-- Collected documents that are not yet through, whole.
CREATE TABLE spool (
    n            INTEGER PRIMARY KEY,
    route        INTEGER NOT NULL REFERENCES route (n),
    key          BLOB NOT NULL,
    content_type TEXT,
    body         BLOB NOT NULL,
    attempt      INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    failed_at    INTEGER
) STRICT;

CREATE INDEX spool_due ON spool (route, due_at);

-- Events that were published, so that the same event is not published for a second notice of it.
CREATE TABLE published (
    key BLOB PRIMARY KEY,
    at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX published_by_age ON published (at);

-- What is open in a system and has to be asked about.
CREATE TABLE item (
    n          INTEGER PRIMARY KEY,
    route      INTEGER NOT NULL REFERENCES route (n),
    key        TEXT NOT NULL,
    one_per    TEXT,
    cause      TEXT NOT NULL,
    opened_at  INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    asked      INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    told       INTEGER NOT NULL DEFAULT 0,
    settled_at INTEGER,
    -- The type of the event in which it ended.
    outcome    TEXT,
    UNIQUE (route, key)
) STRICT;

CREATE INDEX item_due ON item (route, due_at) WHERE settled_at IS NULL;
CREATE INDEX item_one_per ON item (route, one_per);

-- How far a poll has looked.
CREATE TABLE cursor (
    route INTEGER PRIMARY KEY REFERENCES route (n),
    value TEXT NOT NULL
) STRICT;

-- What people did.
CREATE TABLE audit (
    n      INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    who    TEXT NOT NULL,
    what   TEXT NOT NULL,
    reason TEXT NOT NULL,
    about  TEXT NOT NULL
) STRICT;
