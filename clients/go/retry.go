package flowkeep

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Texts of gRPC, which has no codes for them: a call whose connection broke, which it reports as UNKNOWN or INTERNAL when
// the other side, or a proxy, resets the stream; a message that is too large and will stay so; and a client that is closed.
var (
	breaks   = []string{"rst_stream", "goaway", "connection reset", "broken pipe", "transport is closing", "unexpected eof"}
	tooLarge = []string{"larger than max", "size exceeds"}
	closed   = []string{"client connection is closing"}
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// mayRepeat says whether a call should be sent again. Every call may be: those that change something have an id.
func mayRepeat(err *Error) bool {
	switch err.Code {
	case codes.Unavailable:
		return true
	case codes.Canceled: // servers answer so, unasked, to calls that they could not accept in time
		return err.Reason == "" && !says(err, closed)
	case codes.ResourceExhausted: // too much work somewhere on the way, which passes
		return err.RetryAfter != nil || err.Reason == "" && !says(err, tooLarge)
	case codes.Unknown, codes.Internal:
		return err.Reason == "" && says(err, breaks)
	default:
		return false
	}
}

// mayResume says whether a stream that can be resumed by position should be opened again.
func mayResume(err *Error) bool {
	return err.Code == codes.DeadlineExceeded || err.Code == codes.Aborted || mayRepeat(err)
}

func says(err *Error, texts []string) bool {
	message := strings.ToLower(err.Message)
	for _, text := range texts {
		if strings.Contains(message, text) {
			return true
		}
	}
	return false
}

// pausing gives pauses that double up to the longest, each shortened at random by up to a half.
type pausing struct{ pause time.Duration }

// after returns the pause after an error; never shorter than what the server asked for, but spread beyond it.
func (b *pausing) after(err *Error) time.Duration {
	if b.pause == 0 {
		b.pause = firstPause
	}
	// Many clients of one server fail at the same moment and must not return together.
	drawn := b.pause/2 + rand.N(b.pause/2)
	b.pause = min(2*b.pause, longestPause)
	if err != nil && err.RetryAfter != nil {
		drawn += *err.RetryAfter
	}
	return drawn
}

// reset begins with the shortest pause again.
func (b *pausing) reset() { b.pause = 0 }

// sleep returns after a pause, or with the cause of the context's end before.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
