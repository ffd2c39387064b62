-- What ops made. Records outlive bytes: nothing here says that a layer is present.
CREATE TABLE snapshots (
    chain BLOB PRIMARY KEY,
    below BLOB NOT NULL,
    layer BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    chain BLOB NOT NULL,
    keeps_owners INTEGER NOT NULL,
    created INTEGER NOT NULL,
    saved INTEGER NOT NULL,
    description TEXT NOT NULL
);
CREATE INDEX records_by_key ON records (key, id);

-- Digests of files that a selection takes from a snapshot, or from a build context.
CREATE TABLE files (
    snapshot BLOB NOT NULL,
    selection BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (snapshot, selection)
) WITHOUT ROWID;

CREATE TABLE contexts (
    id INTEGER PRIMARY KEY,
    directory BLOB NOT NULL,
    selection BLOB NOT NULL,
    saved INTEGER NOT NULL,
    entries BLOB NOT NULL,
    UNIQUE (directory, selection)
);

-- The steps of projects as they were last seen, and what their keys were made of.
CREATE TABLE steps (
    id INTEGER PRIMARY KEY,
    project BLOB NOT NULL,
    place TEXT NOT NULL,
    name TEXT NOT NULL,
    key BLOB NOT NULL,
    saved INTEGER NOT NULL,
    evidence BLOB NOT NULL,
    UNIQUE (project, place)
);

-- What references meant when they were last looked up, and the manifests and configs behind them.
CREATE TABLE pins (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    bytes BLOB NOT NULL
);

-- Bytes that are here, and when a process last began to count on them.
CREATE TABLE blobs (
    digest BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    saved INTEGER NOT NULL,
    used INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE layers (
    map TEXT NOT NULL,
    by_chain INTEGER NOT NULL,
    digest BLOB NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (map, by_chain, digest)
) WITHOUT ROWID;

-- Written, but perhaps not yet on the disk.
CREATE TABLE unsynced (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL,
    map TEXT,
    by_chain INTEGER,
    digest BLOB NOT NULL
);

-- The forms of a layer: compressed here, or in some registry, or with earlier times.
CREATE TABLE layer_blobs (
    layer BLOB NOT NULL,
    blob BLOB NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (layer, blob)
) WITHOUT ROWID;

CREATE TABLE remotes (
    layer BLOB NOT NULL,
    blob BLOB NOT NULL,
    reference TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (layer, blob, reference)
) WITHOUT ROWID;

CREATE TABLE clamped (
    layer BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    clamped BLOB NOT NULL,
    PRIMARY KEY (layer, epoch)
) WITHOUT ROWID;

-- The early cut-off: which layer was made on a base, seen without its times.
CREATE TABLE stamps (
    base BLOB NOT NULL,
    timeless BLOB NOT NULL,
    layer BLOB NOT NULL,
    PRIMARY KEY (base, timeless)
) WITHOUT ROWID;

CREATE TABLE layer_times (
    id INTEGER PRIMARY KEY,
    layer BLOB NOT NULL UNIQUE,
    times BLOB NOT NULL
);

-- The names of images; index.json is made from this. Its row says whether the file is behind.
CREATE TABLE images (
    reference TEXT PRIMARY KEY,
    descriptor TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE index_file (stale INTEGER NOT NULL);
INSERT INTO index_file VALUES (0);
