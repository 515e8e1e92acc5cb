package main

import "github.com/alecthomas/kong"

type configFile struct{}

func (*configFile) Validate(*kong.Application) error { return nil }
func (*configFile) Resolve(*kong.Context, *kong.Path, *kong.Flag) (any, error) { return nil, nil }
