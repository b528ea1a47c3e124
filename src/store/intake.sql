-- How much was taken in, counted for itself, so that the account has two sides; it came with version 6.

-- One row for each route and hour in which something of it was taken in that the journal still remembers. What the journal no
-- longer remembers has moved to hour -1, in the same commit, and stands against `pruned`.
CREATE TABLE intake (
    route    INTEGER NOT NULL REFERENCES route (n),
    -- Since 1970.
    hour     INTEGER NOT NULL,
    -- Taken in for the first time, and copies of these, whenever they came.
    messages INTEGER NOT NULL,
    copies   INTEGER NOT NULL,
    -- The sums of the first and of the second four bytes of the messages' keys: they tell which one is missing.
    high     INTEGER NOT NULL,
    low      INTEGER NOT NULL,
    PRIMARY KEY (route, hour)
) STRICT, WITHOUT ROWID;

-- What was given up or discarded, to be named: little, and nothing is written to it for a message that is delivered.
CREATE INDEX journal_given_up ON journal (state, route) WHERE state = 5 OR state = 6;

-- What has been settled, by age, to be forgotten.
CREATE INDEX item_by_age ON item (settled_at) WHERE settled_at IS NOT NULL;
