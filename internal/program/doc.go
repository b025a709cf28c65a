// Package program starts programs of others for tests, and waits for what they say, on
// Linux. Only tests, and programs that test, import it.
package program
