// Package bench is a load generator for MQTT brokers. It knows a broker by its
// URL alone, and, if it is told the process id, by what the kernel says about
// that process.
//
// Command mounts in a kong command line; Run is a command line of its own.
package bench
