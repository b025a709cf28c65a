// Package chromium drives a headless Chromium for tests, by its DevTools protocol, on
// Linux. Only tests import it.
package chromium
