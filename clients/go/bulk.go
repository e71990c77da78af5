package flowkeep

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// BulkOptions says on which executions an operation in bulk acts, and how; all filters that are given must hold.
type BulkOptions struct {
	Filters
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Reason is why, for the history of each execution.
	Reason string
	// Limit is after how many executions it ends, 0 for as many as may be.
	Limit int32
	// Rate is how many executions it comes to in a second at most, 0 for as many as fit.
	Rate int32
	// MatchAll lets the filter have no condition beside the states.
	MatchAll bool
}

func (o *BulkOptions) request(action *flowkeepv1.BulkAction) *flowkeepv1.StartBulkRequest {
	var set BulkOptions
	if o != nil {
		set = *o
	}
	return &flowkeepv1.StartBulkRequest{
		Filter: set.message(), Action: action, Reason: set.Reason, Limit: set.Limit, Rate: set.Rate, MatchAll: set.MatchAll,
		RequestId: requestID(set.RequestID),
	}
}

// StartBulk starts an operation, such as &flowkeepv1.BulkAction{Kind: &flowkeepv1.BulkAction_Cancel_{}}, on all executions
// that meet the filters, and returns it. It goes on by itself: WatchBulk follows it. The error is ErrFailedPrecondition,
// TOO_MANY_BULKS, when as many run as may.
func (c *Client) StartBulk(ctx context.Context, action *flowkeepv1.BulkAction, options *BulkOptions) (*flowkeepv1.Bulk, error) {
	response, err := call(ctx, c, c.bulks.StartBulk, options.request(action), c.timeout)
	return response.GetBulk(), err
}

// PreviewBulk returns how many executions an operation would come to, and the first of them; nothing is done to them.
func (c *Client) PreviewBulk(ctx context.Context, action *flowkeepv1.BulkAction, options *BulkOptions) (*flowkeepv1.StartBulkResponse, error) {
	request := options.request(action)
	request.ValidateOnly = true
	return call(ctx, c, c.bulks.StartBulk, request, c.timeout)
}

// GetBulk returns an operation. The error is ErrNotFound, BULK_NOT_FOUND, for one that the caller does not see; so it is of
// the calls below.
func (c *Client) GetBulk(ctx context.Context, bulkID string) (*flowkeepv1.Bulk, error) {
	response, err := call(ctx, c, c.bulks.GetBulk, &flowkeepv1.GetBulkRequest{BulkId: bulkID}, c.timeout)
	return response.GetBulk(), err
}

// ListBulks yields operations, newest first, in one of the states if any are given. Pages are fetched as needed; an error
// is the last thing that it yields.
func (c *Client) ListBulks(ctx context.Context, states ...flowkeepv1.Bulk_State) iter.Seq2[*flowkeepv1.Bulk, error] {
	request := &flowkeepv1.ListBulksRequest{States: states}
	return pages(&request.PageToken, func() ([]*flowkeepv1.Bulk, string, error) {
		page, err := call(ctx, c, c.bulks.ListBulks, request, c.timeout)
		return page.GetBulks(), page.GetNextPageToken(), err
	})
}

// WatchBulk yields an operation as it is, and whenever it has come on, through any broken connection, until its end; an
// error is the last thing that it yields.
func (c *Client) WatchBulk(ctx context.Context, bulkID string) iter.Seq2[*flowkeepv1.Bulk, error] {
	request := &flowkeepv1.WatchBulkRequest{BulkId: bulkID}
	responses := lasting(ctx, c, func(ctx context.Context) (grpc.ServerStreamingClient[flowkeepv1.WatchBulkResponse], error) {
		return c.bulks.WatchBulk(ctx, request)
	}, nil)
	return func(yield func(*flowkeepv1.Bulk, error) bool) {
		for response, err := range responses {
			if !yield(response.GetBulk(), err) || response.GetBulk().GetState() != flowkeepv1.Bulk_STATE_RUNNING {
				return
			}
		}
	}
}

// StopBulk lets an operation do nothing more, and returns it; what it has done stays done.
func (c *Client) StopBulk(ctx context.Context, bulkID string) (*flowkeepv1.Bulk, error) {
	response, err := call(ctx, c, c.bulks.StopBulk, &flowkeepv1.StopBulkRequest{BulkId: bulkID}, c.timeout)
	return response.GetBulk(), err
}

// ListBulkResults yields what came of each execution, in the order in which the operation came to them, with one of the
// outcomes if any are given.
func (c *Client) ListBulkResults(ctx context.Context, bulkID string, outcomes ...flowkeepv1.BulkResult_Outcome) iter.Seq2[*flowkeepv1.BulkResult, error] {
	request := &flowkeepv1.ListBulkResultsRequest{BulkId: bulkID, Outcomes: outcomes}
	return pages(&request.PageToken, func() ([]*flowkeepv1.BulkResult, string, error) {
		page, err := call(ctx, c, c.bulks.ListBulkResults, request, c.timeout)
		return page.GetResults(), page.GetNextPageToken(), err
	})
}
