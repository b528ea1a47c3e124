-- The tables for files and extracts; they came with version 3.

-- Files that were taken from a system. The point moves in the same commit as the records that were taken in.
CREATE TABLE file (
    n          INTEGER PRIMARY KEY,
    route      INTEGER NOT NULL REFERENCES route (n),
    name       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    size       INTEGER NOT NULL,
    modified   INTEGER,
    -- 1 taken, 2 reading, 3 done, 4 refused, 5 held for a person, 6 accepted by one
    state      INTEGER NOT NULL,
    -- Whether the file in the system has been put where it belongs.
    told       INTEGER NOT NULL,
    taken_at   INTEGER NOT NULL,
    done_at    INTEGER,
    point      TEXT,
    records    INTEGER NOT NULL DEFAULT 0,
    bad        INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    code       TEXT,
    why        TEXT,
    who        TEXT,
    reason     TEXT
) STRICT;

CREATE INDEX file_by_digest ON file (route, digest);
CREATE INDEX file_by_name ON file (route, name);
CREATE INDEX file_open ON file (route) WHERE state IN (1, 2, 6) OR told = 0;

-- What the last extract of a route said: a hash for each key.
CREATE TABLE extract_row (
    route INTEGER NOT NULL REFERENCES route (n),
    key   BLOB NOT NULL,
    hash  BLOB NOT NULL,
    -- The key's values, as a JSON list.
    name  TEXT NOT NULL,
    PRIMARY KEY (route, key)
) STRICT, WITHOUT ROWID;
