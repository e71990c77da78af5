// The worker in Go, which makes invoices.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	flowkeep "flowkeep.dev/go"
)

// shipping is what a parcel costs, in cents.
const shipping = 490

// Order is what an invoice is made of.
type Order struct {
	Lines []struct {
		Item  string
		Count int
		Price int
	}
	Parcels int
}

// Invoice is what the customer is told and has to pay.
type Invoice struct {
	Cents int    `json:"cents"`
	Text  string `json:"text"`
}

// invoice adds up what was ordered, and what it costs to send it.
func invoice(_ context.Context, order Order, attempt *flowkeep.Attempt) (Invoice, error) {
	if len(order.Lines) == 0 {
		return Invoice{}, &flowkeep.HandlerError{Code: "EMPTY_ORDER", Message: "nothing was ordered", Final: true}
	}
	var total int
	var text strings.Builder
	write := func(count int, what string, price int) {
		total += count * price
		fmt.Fprintf(&text, "%d x %s %d.%02d\n", count, what, count*price/100, count*price%100)
	}
	for _, line := range order.Lines {
		write(line.Count, line.Item, line.Price)
	}
	write(order.Parcels, "shipping", shipping)
	fmt.Fprintf(&text, "total %d.%02d", total/100, total%100)
	attempt.Report(100, "added up")
	return Invoice{total, text.String()}, nil
}

func main() {
	target := cmp.Or(os.Getenv("FLOWKEEP_TARGET"), "localhost:50051")
	worker, err := flowkeep.NewWorker(target, &flowkeep.WorkerOptions{Name: "accountant"})
	if err != nil {
		log.Fatal(err)
	}
	flowkeep.Handle(worker, flowkeep.Handler{
		Name: "invoice", Description: "Makes the invoice of an order.", Effect: flowkeep.None,
		Params: map[string]any{
			"type": "object", "required": []string{"lines", "parcels"},
			"properties": map[string]any{
				"lines": map[string]any{"type": "array", "items": map[string]any{
					"type": "object", "required": []string{"item", "count", "price"},
				}},
				"parcels": map[string]any{"type": "integer", "minimum": 0},
			},
		},
	}, invoice)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := worker.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
