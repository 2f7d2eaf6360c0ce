// franz-go: commands in, answers out, one JSON object a line (../README.md).
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const wait = 20 * time.Second

var can = []string{
	"none", "gzip", "snappy", "lz4", "zstd", "bytes", "read", "time", "group", "topics", "groups",
	"idempotent", "transactions", "abort",
}

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

// A record as commands give and answers say it. Go encodes byte slices as base64, and nil as null.
type record struct {
	Partition *int32 `json:"partition,omitempty"`
	Offset    int64  `json:"offset"`
	Time      *int64 `json:"time,omitempty"`
	Key       []byte `json:"key"`
	Value     []byte `json:"value"`
}

type command struct {
	Do          string             `json:"do"`
	Topic       string             `json:"topic"`
	Records     []record           `json:"records"`
	Compression string             `json:"compression"`
	Idempotent  bool               `json:"idempotent"`
	Count       *int               `json:"count"`
	Time        *int64             `json:"time"`
	Committed   bool               `json:"committed"`
	Group       string             `json:"group"`
	ID          string             `json:"id"`
	End         string             `json:"end"`
	Partitions  int32              `json:"partitions"`
	Config      map[string]*string `json:"config"`
}

var saying sync.Mutex

func say(line map[string]any) {
	saying.Lock()
	defer saying.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}

type program struct {
	brokers  string
	security []kgo.Opt
}

func (p program) client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(append(options, p.security...), kgo.SeedBrokers(p.brokers))...)
}

// How to come in where the broker asks who one is.
func security() ([]kgo.Opt, error) {
	text := os.Getenv("KAFKA_SECURITY")
	if text == "" {
		return nil, nil
	}
	var how struct{ Mechanism, Username, Password, CA string }
	if err := json.Unmarshal([]byte(text), &how); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(how.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", how.CA)
	}
	var mechanism sasl.Mechanism
	switch how.Mechanism {
	case "PLAIN":
		mechanism = plain.Auth{User: how.Username, Pass: how.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		mechanism = scram.Auth{User: how.Username, Pass: how.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		mechanism = scram.Auth{User: how.Username, Pass: how.Password}.AsSha512Mechanism()
	default:
		return nil, fmt.Errorf("unknown mechanism %s", how.Mechanism)
	}
	return []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: roots}), kgo.SASL(mechanism)}, nil
}

func said(r *kgo.Record) record {
	at := r.Timestamp.UnixMilli()
	return record{Partition: &r.Partition, Offset: r.Offset, Time: &at, Key: r.Key, Value: r.Value}
}

// Records that name a partition go there, the others where their key says.
type partitioner struct{ kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return topicPartitioner{p.Partitioner.ForTopic(topic)}
}

type topicPartitioner struct{ kgo.TopicPartitioner }

func (p topicPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return p.TopicPartitioner.Partition(r, n)
}

func send(ctx context.Context, client *kgo.Client, c command) (any, error) {
	records := make([]*kgo.Record, 0, len(c.Records))
	for _, each := range c.Records {
		made := &kgo.Record{Topic: c.Topic, Key: each.Key, Value: each.Value, Partition: -1}
		if each.Partition != nil {
			made.Partition = *each.Partition
		}
		if each.Time != nil {
			made.Timestamp = time.UnixMilli(*each.Time)
		}
		records = append(records, made)
	}
	return len(records), client.ProduceSync(ctx, records...).FirstErr()
}

func (p program) produce(ctx context.Context, c command) (any, error) {
	codec, known := codecs[c.Compression]
	if !known {
		codec = kgo.NoCompression()
	}
	options := []kgo.Opt{
		kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)}),
		kgo.ProducerLinger(20 * time.Millisecond),
	}
	if !c.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := p.client(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return send(ctx, client, c)
}

func (p program) read(ctx context.Context, c command) (any, error) {
	start := kgo.NewOffset().AtStart()
	if c.Time != nil {
		start = kgo.NewOffset().AfterMilli(*c.Time)
	}
	isolation := kgo.ReadUncommitted()
	if c.Committed {
		isolation = kgo.ReadCommitted()
	}
	client, err := p.client(kgo.ConsumeTopics(c.Topic), kgo.ConsumeResetOffset(start), kgo.FetchIsolationLevel(isolation))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	found := []record{}
	for len(found) < *c.Count {
		fetches := client.PollRecords(ctx, *c.Count-len(found))
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("%d of %d records came: %w", len(found), *c.Count, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { found = append(found, said(r)) })
	}
	return found, nil
}

func (p program) join(c command) (any, error) {
	ctx := context.Background()
	// The cooperative balancer moves single partitions, so what is assigned is kept as a set.
	owned := map[int32]bool{}
	tell := func(change map[string][]int32, own bool) {
		for _, partition := range change[c.Topic] {
			if own {
				owned[partition] = true
			} else {
				delete(owned, partition)
			}
		}
		all := []int32{}
		for partition := range owned {
			all = append(all, partition)
		}
		say(map[string]any{"assigned": all})
	}
	lose := func(_ context.Context, _ *kgo.Client, change map[string][]int32) { tell(change, false) }
	client, err := p.client(
		kgo.ConsumerGroup(c.Group),
		kgo.ConsumeTopics(c.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, change map[string][]int32) { tell(change, true) }),
		kgo.OnPartitionsRevoked(lose),
		kgo.OnPartitionsLost(lose),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	seen := 0
	for c.Count == nil || seen < *c.Count {
		fetches := client.PollRecords(ctx, 1)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		for _, each := range fetches.Records() {
			say(map[string]any{"record": said(each)})
			if err := client.CommitRecords(ctx, each); err != nil {
				return nil, err
			}
			seen++
		}
	}
	return seen, nil
}

func (p program) transact(ctx context.Context, c command) (any, error) {
	client, err := p.client(kgo.TransactionalID(c.ID))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		return nil, err
	}
	if _, err := send(ctx, client, c); err != nil {
		return nil, err
	}
	return nil, client.EndTransaction(ctx, kgo.TransactionEndTry(c.End == "commit"))
}

func (p program) admin(ctx context.Context, c command) (any, error) {
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	admin := kadm.NewClient(client)
	defer admin.Close()
	switch c.Do {
	case "create":
		_, err := admin.CreateTopic(ctx, c.Partitions, 1, c.Config, c.Topic)
		return nil, err
	case "describe":
		return describe(ctx, admin, c.Topic)
	case "alter":
		var changes []kadm.AlterConfig
		for name, value := range c.Config {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: value})
		}
		altered, err := admin.AlterTopicConfigs(ctx, changes, c.Topic)
		if err != nil {
			return nil, err
		}
		grown, err := admin.UpdatePartitions(ctx, int(c.Partitions), c.Topic)
		if err != nil {
			return nil, err
		}
		return nil, errors.Join(altered[0].Err, grown.Error())
	case "delete":
		_, err := admin.DeleteTopic(ctx, c.Topic)
		return nil, err
	case "topics":
		topics, err := admin.ListTopics(ctx)
		return topics.Names(), err
	case "groups":
		groups, err := admin.ListGroups(ctx)
		return groups.Groups(), err
	case "group":
		described, err := admin.DescribeGroups(ctx, c.Group)
		if err != nil {
			return nil, err
		}
		group := described[c.Group]
		return map[string]any{"state": strings.ToLower(group.State), "members": len(group.Members)}, group.Err
	case "offsets":
		committed, err := admin.FetchOffsets(ctx, c.Group)
		if err != nil {
			return nil, err
		}
		found := map[string]int64{}
		for partition, at := range committed[c.Topic] {
			found[strconv.Itoa(int(partition))] = at.At
		}
		return found, nil
	}
	return nil, fmt.Errorf("unknown command %s", c.Do)
}

func describe(ctx context.Context, admin *kadm.Client, topic string) (any, error) {
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	described, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for _, each := range described[0].Configs {
		config[each.Key] = each.MaybeValue()
	}
	return map[string]any{"partitions": len(topics[topic].Partitions), "config": config}, described[0].Err
}

func (p program) answer(c command) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	switch c.Do {
	case "produce":
		return p.produce(ctx, c)
	case "read":
		return p.read(ctx, c)
	case "join":
		return p.join(c)
	case "transact":
		return p.transact(ctx, c)
	}
	return p.admin(ctx, c)
}

// The version of franz-go that this program was built with.
func version() string {
	if info, known := debug.ReadBuildInfo(); known {
		for _, each := range info.Deps {
			if each.Path == "github.com/twmb/franz-go" {
				return strings.TrimPrefix(each.Version, "v")
			}
		}
	}
	return "of unknown version"
}

func main() {
	how, err := security()
	if err != nil {
		panic(err)
	}
	p := program{os.Args[1], how}
	say(map[string]any{"client": "franz-go " + version(), "can": can})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var c command
		answer, err := any(nil), json.Unmarshal(lines.Bytes(), &c)
		if err == nil {
			answer, err = p.answer(c)
		}
		if err != nil {
			say(map[string]any{"error": err.Error()})
		} else {
			say(map[string]any{"ok": answer})
		}
	}
}
