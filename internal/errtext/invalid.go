package errtext

import (
	"errors"
	"fmt"
)

// InvalidArgument is dialog.ErrInvalidArgument, for packages that dialog uses.
var InvalidArgument = errors.New("dialog: invalid argument")

// Invalid is InvalidArgument with a reason.
func Invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", InvalidArgument, fmt.Sprintf(format, args...))
}
