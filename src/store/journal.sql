-- The journal. One row per message and route; further rows (part > 0) for parts that a route sends one by one.
--
-- Keys are digests, so whatever is kept in their order is written all over. Rows are therefore kept in the order in which they
-- came, and only the index of the primary key is in that of the keys: a message writes one narrow page of it, once, and all
-- else at the end of the table (docs/decisions/0016-the-journal-is-kept-in-the-order-of-intake.md). No indexed column changes
-- on the way of a message that is delivered.
CREATE TABLE journal (
    route     INTEGER NOT NULL REFERENCES route (n),
    key       BLOB    NOT NULL,
    part      INTEGER NOT NULL,
    state     INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    replay    INTEGER NOT NULL,
    -- Whether a request may have been carried out of which nobody knows.
    doubt     INTEGER NOT NULL,
    -- Which run of the bridge claimed it: a claim of an earlier run was cut by a crash.
    run       INTEGER NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    source    TEXT NOT NULL,
    id        TEXT NOT NULL,
    taken_at  INTEGER NOT NULL,
    sent_at   INTEGER,
    failed_at INTEGER,
    due_at    INTEGER,
    done_at   INTEGER,
    -- What was read before the first attempt and holds for all.
    kept      TEXT,
    -- The system's answer, until the reply made of it has been published.
    answer    BLOB,
    code      TEXT,
    -- Why a part was given up, until the dead letter of the whole is made: stage, field, sentence, a line each.
    why       TEXT,
    -- The digest of the mapping that handled it last.
    mapping   TEXT,
    PRIMARY KEY (route, key, part)
) STRICT;

-- What is old, and what belongs to an hour, a route at a time; several are taken in at one moment.
CREATE INDEX journal_by_age_of_route ON journal (route, taken_at, key);
