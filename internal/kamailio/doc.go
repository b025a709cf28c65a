// Package kamailio starts Kamailio as a peer of tests, on Linux: a registrar and proxy, or
// what a configuration of the test's own makes of it. Only tests, and programs that test,
// import it.
package kamailio
