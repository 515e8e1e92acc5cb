// Package store keeps the broker's durable state: implementations of
// broker.Store, one in files (Open), one in memory for tests (NewMemory).
package store
