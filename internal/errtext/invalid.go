package errtext

import (
	"errors"
	"fmt"
)

// ErrInvalidArgument is dialog.ErrInvalidArgument, for packages that dialog uses.
var ErrInvalidArgument = errors.New("dialog: invalid argument")

// Invalid is ErrInvalidArgument with a reason.
func Invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidArgument, fmt.Sprintf(format, args...))
}
