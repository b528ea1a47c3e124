-- What a person has stopped, and how the gates of the routes stand, for commands beside the bridge.

CREATE TABLE pause (
    -- <adapter in use>.<route>
    route TEXT PRIMARY KEY,
    who   TEXT NOT NULL,
    why   TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE gate (
    route TEXT PRIMARY KEY,
    -- tripped or probing; what is closed or paused needs no bridge to be known.
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    -- When it is tried next.
    until INTEGER NOT NULL,
    times INTEGER NOT NULL,
    code  TEXT NOT NULL,
    why   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What waits longest, and since when it was last told that it waits too long.
CREATE TABLE oldest (
    route TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX journal_waiting ON journal (route, taken_at) WHERE state = 2;
