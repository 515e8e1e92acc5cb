package store

// Stats is what a store takes of the disk.
type Stats struct {
	Levels []Level // from the newest to the oldest; those that are empty are left out
	Tables uint64  // bytes of all tables in use
	Log    uint64  // bytes of the logs in use
	Spare  uint64  // bytes of logs that are kept to be used again
	Disk   uint64  // bytes of all files, also of those that are about to be removed
	Free   uint64  // bytes that the file system has left
}

// Level is one of the levels that the tables are in.
type Level struct {
	Number int
	Tables int
	Bytes  int64
}

// Stats returns them.
func (d *Disk) Stats() (s Stats, err error) {
	err = d.read(func() error {
		m := d.db.Metrics()
		for i, l := range m.Levels {
			if l.TablesCount > 0 {
				s.Levels = append(s.Levels, Level{i, int(l.TablesCount), l.TablesSize})
			}
		}
		s.Tables, s.Log, s.Spare, s.Disk = uint64(m.Total().TablesSize), m.WAL.Size, m.WAL.ObsoletePhysicalSize, d.size()
		if d.opts.ReadOnly { // pebble has read the logs, and takes them for spare ones
			if s.Log, s.Spare, err = d.logBytes(); err != nil {
				return err
			}
		}
		s.Free, err = d.Free()
		return err
	})
	return s, err
}

// logBytes are those of the logs that a start reads, and of the others.
func (d *Disk) logBytes() (wanted, spare uint64, err error) {
	_, first, err := checkManifest(d.guard, d.dir, logList{})
	if err != nil {
		return 0, 0, err
	}
	names, err := d.guard.List(d.dir)
	for _, name := range names {
		if n, ok := logNumber(name); !ok {
			continue
		} else if n >= first {
			wanted += d.bytes(name)
		} else {
			spare += d.bytes(name)
		}
	}
	return wanted, spare, err
}

// size is that of all files. pebble's count of its log lags behind.
func (d *Disk) size() (bytes uint64) {
	names, _ := d.guard.List(d.dir) // without a list there is nothing to count
	for _, name := range names {
		bytes += d.bytes(name)
	}
	return bytes
}

// bytes are those of a file. One that goes meanwhile has none.
func (d *Disk) bytes(name string) uint64 {
	info, err := d.guard.Stat(d.guard.PathJoin(d.dir, name))
	if err != nil || info.IsDir() {
		return 0
	}
	return uint64(info.Size())
}
