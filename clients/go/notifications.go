package flowkeep

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// ListNotifications yields the caller's notifications, newest first. Pages are fetched as needed; an error is the last
// thing that it yields.
func (c *Client) ListNotifications(ctx context.Context, unreadOnly bool) iter.Seq2[*flowkeepv1.Notification, error] {
	request := &flowkeepv1.ListNotificationsRequest{UnreadOnly: unreadOnly}
	return pages(&request.PageToken, func() ([]*flowkeepv1.Notification, string, error) {
		page, err := call(ctx, c, c.notices.ListNotifications, request, c.timeout)
		return page.GetNotifications(), page.GetNextPageToken(), err
	})
}

// CountUnreadNotifications returns how many notifications the caller has not read.
func (c *Client) CountUnreadNotifications(ctx context.Context) (int, error) {
	request := &flowkeepv1.ListNotificationsRequest{UnreadOnly: true, CountUnread: true, PageSize: 1}
	response, err := call(ctx, c, c.notices.ListNotifications, request, c.timeout)
	return int(response.GetUnreadCount()), err
}

// ReadOptions says which notifications are read.
type ReadOptions struct {
	// RequestID is the id of the request; without one the client makes it.
	RequestID string
	// Seqs are the numbers of some; or else UpToSeq is that of the last of all.
	Seqs    []int64
	UpToSeq int64
}

// MarkNotificationsRead marks notifications as read and returns how many are still unread. Those that are read already,
// are of others or are no longer kept are passed over.
func (c *Client) MarkNotificationsRead(ctx context.Context, which ReadOptions) (int, error) {
	request := &flowkeepv1.MarkNotificationsReadRequest{
		Seqs: which.Seqs, UpToSeq: which.UpToSeq, RequestId: requestID(which.RequestID),
	}
	response, err := call(ctx, c, c.notices.MarkNotificationsRead, request, c.timeout)
	return int(response.GetUnreadCount()), err
}

// WatchNotifications yields the caller's notifications in order as they come, those after a number or, with nil, from now
// on. Each comes exactly once, through any broken connection; there is no end.
//
// An error is the last thing that it yields: ErrOutOfRange for a number that the org has not reached, one of identity, or
// the cause of the context's end.
func (c *Client) WatchNotifications(ctx context.Context, afterSeq *int64) iter.Seq2[*flowkeepv1.Notification, error] {
	return func(yield func(*flowkeepv1.Notification, error) bool) {
		request := &flowkeepv1.WatchNotificationsRequest{AfterSeq: afterSeq}
		open := func(ctx context.Context) (grpc.ServerStreamingClient[flowkeepv1.WatchNotificationsResponse], error) {
			return c.notices.WatchNotifications(ctx, request)
		}
		for response, err := range lasting(ctx, c, open, nil) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, notification := range response.GetNotifications() {
				if !yield(notification, nil) {
					return
				}
			}
			request = &flowkeepv1.WatchNotificationsRequest{AfterSeq: &response.Seq}
		}
	}
}
