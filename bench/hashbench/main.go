// Command hashbench is the load generator on its own.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"hashplus/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := bench.Run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hashbench:", err)
		os.Exit(1)
	}
}
