// Starts an execution of the workflow hello, watches it, and prints its result.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	flowkeep "flowkeep.dev/go"
)

func main() {
	ctx := context.Background()
	client, err := flowkeep.New(cmp.Or(os.Getenv("FLOWKEEP_TARGET"), "localhost:50051"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	execution, err := client.Execute(ctx, "hello", map[string]string{"name": "world"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range client.Watch(ctx, execution.GetExecutionId(), nil) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.GetSeq(), event.GetProgressPercent(), "%")
	}
	var result string
	if err := client.Result(ctx, execution.GetExecutionId(), &result); err != nil {
		log.Fatal(err)
	}
	fmt.Println(result)
}
