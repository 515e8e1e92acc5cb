//go:build !profile

package main

// profiled does nothing: see profile_on.go.
func profiled() (stop func() error, err error) { return func() error { return nil }, nil }
