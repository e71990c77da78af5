package flowkeep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/known/structpb"
)

const (
	maxWholeNumber = 1 << 53
	// leastFloat: a whole double beyond is no integer of 64 bits that lost its digits, but one such as 6.02e23.
	leastFloat = 1 << 64
	// Protobuf refuses messages nested more than 100 deep, and a level of JSON takes three of them. The service's own
	// limit is lower, and is checked by the service.
	maxDepth = 32
)

// toStruct returns what encoding/json makes an object of as payloads carry it, nil for nil. The error is a *PayloadError,
// with the path below a path, for what JSON or a double cannot hold.
func toStruct(input any, path string) (*structpb.Struct, error) {
	switch input := input.(type) {
	case nil:
		return nil, nil
	case *structpb.Struct:
		return input, nil
	}
	value, err := plain(input, path)
	if err != nil {
		return nil, err
	}
	object, isObject := value.(map[string]any)
	if !isObject {
		return nil, &PayloadError{path, fmt.Sprintf("must be an object, not %s", kindOf(value))}
	}
	found, err := structpb.NewStruct(object)
	if err != nil {
		return nil, &PayloadError{path, err.Error()}
	}
	return found, nil
}

// toValue returns what encoding/json makes of a value as payloads carry it, null for nil. The error is a *PayloadError.
func toValue(value any, path string) (*structpb.Value, error) {
	made, err := plain(value, path)
	if err != nil {
		return nil, err
	}
	found, err := structpb.NewValue(made)
	if err != nil {
		return nil, &PayloadError{path, err.Error()}
	}
	return found, nil
}

// plain returns a value as maps, slices, strings, float64, bool and nil. The error is a *PayloadError.
func plain(value any, path string) (any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, &PayloadError{path, "cannot be written as JSON: " + err.Error()}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var read any
	if err := decoder.Decode(&read); err != nil {
		return nil, &PayloadError{path, "cannot be read as JSON: " + err.Error()}
	}
	return checked(read, path, 1)
}

// checked returns a JSON value whose numbers are doubles.
func checked(value any, path string, depth int) (any, error) {
	switch value := value.(type) {
	case json.Number:
		return checkedNumber(value, path)
	case string:
		return value, checkedText(value, path)
	case []any:
		if depth > maxDepth {
			return nil, tooDeep(path)
		}
		for index, item := range value {
			found, err := checked(item, fmt.Sprintf("%s[%d]", path, index), depth+1)
			if err != nil {
				return nil, err
			}
			value[index] = found
		}
	case map[string]any:
		if depth > maxDepth {
			return nil, tooDeep(path)
		}
		for _, key := range sortedKeys(value) {
			place := member(path, key)
			if err := checkedText(key, place); err != nil {
				return nil, err
			}
			found, err := checked(value[key], place, depth+1)
			if err != nil {
				return nil, err
			}
			value[key] = found
		}
	}
	return value, nil
}

func checkedNumber(number json.Number, path string) (any, error) {
	double, err := number.Float64()
	if err != nil || math.IsInf(double, 0) {
		return nil, &PayloadError{path, "must be a number that a double holds, not " + number.String()}
	}
	// A double this large is always whole, so that the service cannot tell it from an integer that lost digits.
	if size := math.Abs(double); size >= maxWholeNumber && size <= leastFloat && number.String() != "9007199254740992" {
		return nil, &PayloadError{path, "must not be beyond 2^53, or digits would be lost: send it as a string"}
	}
	return double + 0, nil
}

func checkedText(text, path string) error {
	if strings.ContainsRune(text, 0) {
		return &PayloadError{path, "must not contain the NUL character"}
	}
	return nil
}

func tooDeep(path string) error {
	return &PayloadError{path, fmt.Sprintf("must not be nested more than %d deep", maxDepth)}
}

// member returns the path of a key below a path, in the form that the service uses: params.url, labels["a b"].
func member(path, key string) string {
	if !isIdentifier(key) {
		return fmt.Sprintf("%s[%q]", path, key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func isIdentifier(key string) bool {
	for index, letter := range key {
		if letter != '_' && !unicode.IsLetter(letter) && (index == 0 || !unicode.IsNumber(letter)) {
			return false
		}
	}
	return key != ""
}

// kindOf returns what a JSON value is, in words that do not show it.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "a truth value"
	default:
		return "a number"
	}
}

func sortedKeys(object map[string]any) []string {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// into reads a value as encoding/json does; a value that is not set is null.
func into(value *structpb.Value, target any) error {
	if target == nil {
		return nil
	}
	text := []byte("null")
	if value.GetKind() != nil {
		var err error
		if text, err = value.MarshalJSON(); err != nil {
			return err
		}
	}
	return json.Unmarshal(text, target)
}
