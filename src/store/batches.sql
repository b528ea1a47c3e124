-- Batches that are written to files. Stages: 1 open, 2 sealed, 3 numbered, 4 rendered, 5 placed, 6 sent (batch/mod.rs).

CREATE TABLE batch (
    n         INTEGER PRIMARY KEY,
    -- Whose batch: <adapter in use>.<batch>.
    feed      TEXT NOT NULL,
    -- What keeps batches of one feed apart: the day of processing, or nothing.
    per       TEXT NOT NULL,
    stage     INTEGER NOT NULL,
    items     INTEGER NOT NULL DEFAULT 0,
    sum       INTEGER NOT NULL DEFAULT 0,
    opened_at INTEGER NOT NULL,
    -- When it is sealed at the latest.
    cut_off   INTEGER,
    -- Whether a person wants it sealed.
    asked     INTEGER NOT NULL DEFAULT 0,
    sealed_at INTEGER,
    sealed_by TEXT,
    serial    INTEGER,
    -- The day on which it is processed.
    processing TEXT,
    -- Failures since it last got on, when it is tried again, and why it failed.
    failed    INTEGER NOT NULL DEFAULT 0,
    retry_at  INTEGER,
    code      TEXT,
    why       TEXT,
    sent_at   INTEGER
) STRICT;

CREATE UNIQUE INDEX batch_open ON batch (feed, per) WHERE stage = 1;
CREATE INDEX batch_under_way ON batch (feed) WHERE stage < 6;

-- Items of batches that are not yet sent.
CREATE TABLE batch_item (
    n      INTEGER PRIMARY KEY,
    batch  INTEGER NOT NULL REFERENCES batch (n),
    route  INTEGER NOT NULL REFERENCES route (n),
    key    BLOB    NOT NULL,
    file   TEXT    NOT NULL,
    -- What brings it together with others, as JSON.
    grp    TEXT    NOT NULL,
    sort   TEXT    NOT NULL,
    amount INTEGER NOT NULL,
    -- As it stands in the file; nothing if a row of a complete return holds it.
    record BLOB,
    -- What is remembered of it when it has been sent, as JSON.
    kept   TEXT
) STRICT;

CREATE INDEX batch_item_order ON batch_item (batch, file, sort, n);

-- The rows of complete returns: the latest of each key.
CREATE TABLE batch_row (
    feed   TEXT NOT NULL,
    file   TEXT NOT NULL,
    key    TEXT NOT NULL,
    grp    TEXT NOT NULL,
    sort   TEXT NOT NULL,
    amount INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (feed, file, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX batch_row_order ON batch_row (feed, file, sort, key);

-- The files of rendered batches.
CREATE TABLE batch_file (
    batch  INTEGER NOT NULL REFERENCES batch (n),
    file   TEXT NOT NULL,
    name   TEXT NOT NULL,
    digest BLOB NOT NULL,
    size   INTEGER NOT NULL,
    -- When it began to be put: if nothing is known of how that ended, it may have been there and been taken away.
    claimed_at INTEGER,
    put_at INTEGER,
    PRIMARY KEY (batch, file)
) STRICT, WITHOUT ROWID;

-- The last serial number of each feed.
CREATE TABLE batch_serial (
    feed TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
