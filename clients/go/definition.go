package flowkeep

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	flowkeepv1 "flowkeep.dev/go/v1"
)

// Definition returns a workflow definition in the form in which people write it, of which encoding/json makes an object,
// as a message: fields by their names, enums by their short names (GRAPH), spans of time as text (90s, 1h30m) or seconds,
// payloads as they are. A *flowkeepv1.WorkflowDefinition is returned as it is.
//
// The error is a *DefinitionError with every unknown field and wrong type at once. Rules about values are left to the
// service.
func Definition(document any) (*flowkeepv1.WorkflowDefinition, error) {
	if message, isMessage := document.(*flowkeepv1.WorkflowDefinition); isMessage {
		return message, nil
	}
	written, err := plain(document, "")
	var unfit *PayloadError
	if errors.As(err, &unfit) {
		return nil, &DefinitionError{[]Violation{{unfit.Path, unfit.Description}}}
	}
	message := &flowkeepv1.WorkflowDefinition{}
	reading := &reader{}
	read := reading.message(message.ProtoReflect().Descriptor(), written, "")
	if len(reading.violations) > 0 {
		return nil, &DefinitionError{reading.violations}
	}
	text, err := json.Marshal(read)
	if err != nil {
		return nil, err
	}
	return message, protojson.Unmarshal(text, message)
}

// definitions returns documents as messages. The error says what is wrong with all of them.
func definitions(documents []any) ([]*flowkeepv1.WorkflowDefinition, error) {
	var messages []*flowkeepv1.WorkflowDefinition
	var violations []Violation
	for index, document := range documents {
		message, err := Definition(document)
		var wrong *DefinitionError
		if errors.As(err, &wrong) {
			for _, each := range wrong.Violations {
				place := fmt.Sprintf("definitions[%d]", index)
				if each.Field != "" {
					place += "." + each.Field
				}
				violations = append(violations, Violation{place, each.Description})
			}
		} else if err != nil {
			return nil, err
		}
		messages = append(messages, message)
	}
	if len(violations) > 0 {
		return nil, &DefinitionError{violations}
	}
	return messages, nil
}

// reader makes of a written form the JSON form that protobuf defines, and notes what is wrong. The messages themselves
// say what fields there are, so that a new field needs no change here.
type reader struct{ violations []Violation }

func (r *reader) wrong(path, format string, values ...any) any {
	r.violations = append(r.violations, Violation{path, fmt.Sprintf(format, values...)})
	return nil
}

func (r *reader) message(descriptor protoreflect.MessageDescriptor, document any, path string) any {
	object, isObject := document.(map[string]any)
	if !isObject {
		return r.wrong(path, "must be an object with fields, not %s", kindOf(document))
	}
	fields := descriptor.Fields()
	found := map[string]any{}
	for _, name := range sortedKeys(object) {
		field := fields.ByName(protoreflect.Name(name))
		if field == nil {
			field = fields.ByJSONName(name)
		}
		value := object[name]
		switch {
		case field == nil:
			r.wrong(member(path, name), "is unknown. There are %s", strings.Join(names(fields), ", "))
		case value == nil && !isPayload(field):
			// null means that the field is not set
		default:
			found[field.JSONName()] = r.field(field, value, member(path, name))
		}
	}
	return found
}

func names(fields protoreflect.FieldDescriptors) []string {
	found := make([]string, fields.Len())
	for index := range fields.Len() {
		found[index] = string(fields.Get(index).Name())
	}
	return found
}

func isPayload(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && field.Message().FullName() == "google.protobuf.Value"
}

func (r *reader) field(field protoreflect.FieldDescriptor, value any, path string) any {
	switch {
	case field.IsMap():
		object, isObject := value.(map[string]any)
		if !isObject {
			return r.wrong(path, "must be an object, not %s", kindOf(value))
		}
		for _, key := range sortedKeys(object) {
			object[key] = r.one(field.MapValue(), object[key], member(path, key))
		}
		return object
	case field.IsList():
		list, isList := value.([]any)
		if !isList {
			return r.wrong(path, "must be a list, not %s", kindOf(value))
		}
		for index, item := range list {
			list[index] = r.one(field, item, fmt.Sprintf("%s[%d]", path, index))
		}
		return list
	default:
		return r.one(field, value, path)
	}
}

func (r *reader) one(field protoreflect.FieldDescriptor, value any, path string) any {
	if field.Enum() != nil {
		return r.enum(field.Enum(), value, path)
	}
	if field.Message() == nil {
		return r.scalar(field.Kind(), value, path)
	}
	switch field.Message().FullName() {
	case "google.protobuf.Value":
		return value
	case "google.protobuf.Struct":
		if _, isObject := value.(map[string]any); !isObject {
			return r.wrong(path, "must be an object, not %s", kindOf(value))
		}
		return value
	case "google.protobuf.Duration":
		span, err := spanText(value)
		if err != nil {
			return r.wrong(path, "%s", err)
		}
		return span
	default:
		return r.message(field.Message(), value, path)
	}
}

func (r *reader) enum(descriptor protoreflect.EnumDescriptor, value any, path string) any {
	values := descriptor.Values()
	prefix := strings.TrimSuffix(string(values.Get(0).Name()), "UNSPECIFIED")
	text, _ := value.(string)
	wanted := strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToUpper(strings.TrimSpace(text)))
	var offered []string
	for index := 1; index < values.Len(); index++ {
		name := string(values.Get(index).Name())
		short := strings.TrimPrefix(name, prefix)
		if wanted == name || wanted == short {
			return name
		}
		offered = append(offered, short)
	}
	return r.wrong(path, "must be one of %s", strings.Join(offered, ", "))
}

func (r *reader) scalar(kind protoreflect.Kind, value any, path string) any {
	isRight, right := false, "a whole number below 2^31"
	switch kind {
	case protoreflect.StringKind:
		_, isRight = value.(string)
		right = "a string"
	case protoreflect.BoolKind:
		_, isRight = value.(bool)
		right = "true or false"
	case protoreflect.DoubleKind:
		_, isRight = value.(float64)
		right = "a number"
	default:
		number, isNumber := value.(float64)
		isRight = isNumber && number == math.Trunc(number) && math.Abs(number) < 1<<31
	}
	if !isRight {
		return r.wrong(path, "must be %s, not %s", right, kindOf(value))
	}
	return value
}

var (
	units = []int64{604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1} // in milliseconds
	short = regexp.MustCompile(strings.ReplaceAll(`^(?:Nw)?(?:Nd)?(?:Nh)?(?:Nm)?(?:Ns)?(?:Nms)?$`, "N", count))
	iso   = regexp.MustCompile(strings.ReplaceAll(`^P(?:NW)?(?:ND)?(?:T(?:NH)?(?:NM)?(?:NS)?)?$`, "N", count))
	bare  = regexp.MustCompile("^" + count + "$")
)

const count = `(\d{1,12}(?:\.\d{1,9})?)`

// spanText returns a span of time, a number of seconds or text such as 90s, 1h30m, 7d or PT5M, as protobuf's JSON form
// has it.
func spanText(value any) (string, error) {
	total := new(big.Rat)
	switch value := value.(type) {
	case float64:
		total.SetFloat64(value)
	case string:
		text := strings.TrimSpace(value)
		if bare.MatchString(text) {
			return "", fmt.Errorf("lacks a unit: write '%ss', or the number without quotes for seconds", text)
		}
		counts := short.FindStringSubmatch(text)
		if counts == nil {
			counts = iso.FindStringSubmatch(text)
		}
		if counts == nil || !slices.ContainsFunc(counts[1:], func(each string) bool { return each != "" }) {
			return "", fmt.Errorf("must be a span of time such as '90s', '5m', '1h30m', '7d' or 'PT5M', not %.60q", text)
		}
		for index, each := range counts[1:] {
			if each != "" {
				number, _ := new(big.Rat).SetString(each)
				total.Add(total, number.Mul(number, big.NewRat(units[index], 1_000)))
			}
		}
	default:
		return "", fmt.Errorf("must be a number of seconds or text such as '90s' or '1h30m', not %s", kindOf(value))
	}
	if total.Sign() < 0 || total.Cmp(big.NewRat(315_576_000_000, 1)) > 0 {
		return "", errors.New("must be between 0 and 10,000 years")
	}
	return total.FloatString(9) + "s", nil
}
