-- The parking lot of ordered routes; it came with version 5.

-- Messages that wait in the order of their subject, whole. The first of a subject has a time at which it is due, unless one that
-- was given up holds them all.
CREATE TABLE parked (
    route       INTEGER NOT NULL REFERENCES route (n),
    -- SHA-256 of the subject, and its beginning for people.
    subject     BLOB    NOT NULL,
    shown       TEXT    NOT NULL,
    -- Its place among those of its subject.
    place       INTEGER NOT NULL,
    key         BLOB    NOT NULL,
    exchange    TEXT    NOT NULL,
    routing_key TEXT    NOT NULL,
    properties  TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    parked_at   INTEGER NOT NULL,
    due_at      INTEGER,
    PRIMARY KEY (route, key)
) STRICT;

CREATE UNIQUE INDEX parked_in_order ON parked (route, subject, place);
CREATE INDEX parked_due ON parked (route, due_at) WHERE due_at IS NOT NULL;

-- Subjects whose messages are held by one that was given up.
CREATE TABLE held (
    route   INTEGER NOT NULL REFERENCES route (n),
    subject BLOB    NOT NULL,
    shown   TEXT    NOT NULL,
    -- The message that was given up.
    key     BLOB    NOT NULL,
    code    TEXT    NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (route, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX held_by_key ON held (route, key);

-- How much stands in the lot of each route: counted along, since it is asked with every window.
ALTER TABLE route ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE route ADD COLUMN parked_bytes INTEGER NOT NULL DEFAULT 0;
