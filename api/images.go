package api

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"syscall"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
)

// ImageList is the answer to a list.
type ImageList struct {
	Images []store.Info `json:"images"`
}

// ImportLine is one line of the answer to an import: progress while it lasts, the image or a problem at the
// end.
type ImportLine struct {
	Progress *store.Progress `json:"progress,omitempty"`
	Image    *store.Info     `json:"image,omitempty"`
	Problem  *Problem        `json:"problem,omitempty"`
}

func (s *Server) addImages(rest huma.API) {
	type ref struct {
		Ref string `path:"ref" doc:"name or id"`
	}
	handle(rest, http.MethodGet, "/v1/images", "List images", func(context.Context,
		*struct{},
	) (*body[ImageList], error) {
		return &body[ImageList]{ImageList{append([]store.Info{}, s.images.List()...)}}, nil
	})
	handle(rest, http.MethodGet, "/v1/images/{ref}", "Show an image", func(_ context.Context,
		in *ref,
	) (*body[store.Info], error) {
		img, err := s.images.Get(in.Ref)
		return &body[store.Info]{img}, err
	})
	handle(rest, http.MethodDelete, "/v1/images/{ref}", "Delete an image", func(ctx context.Context,
		in *ref,
	) (*struct{}, error) {
		img, err := s.images.Delete(in.Ref)
		if err != nil {
			return nil, err
		}
		s.log.Info("image deleted", "image", img.Name, "id", img.ID, "actor", actorOf(ctx))
		return nil, nil
	})
}

var importOperation = &huma.Operation{
	OperationID: "import-image", Method: http.MethodPost, Path: "/v1/images", Summary: "Import an image",
	Description: "The body is the image file. The answer is one JSON object per line: " +
		"progress, and at last the image or a problem. " +
		"An error that is found before any progress is an ordinary problem answer.",
	Parameters: []*huma.Param{
		queryParam("name", "name in the catalogue", huma.TypeString),
		queryParam("format",
			"auto (the default, told by the content), raw or qcow2; "+
				"compression is always told by the content",
			huma.TypeString),
		queryParam("sha256", "of the body; the import fails if it differs", huma.TypeString),
		queryParam("sha512", "the same", huma.TypeString),
		queryParam("force", "keep also what no machine could start from", huma.TypeBoolean),
		queryParam("size", "of the body in bytes, when Content-Length cannot say it", huma.TypeInteger),
	},
	RequestBody: &huma.RequestBody{
		Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}},
	},
	Responses: map[string]*huma.Response{
		"200": {
			Description: "Progress, then the image or a problem",
			Content:     map[string]*huma.MediaType{"application/x-ndjson": {}},
		},
	},
}

// VerifyLine is one line of the answer to a verification: progress while it lasts, the verdict or a problem
// at the end.
type VerifyLine struct {
	Progress *store.Progress `json:"progress,omitempty"`
	Verdict  *store.Verdict  `json:"verdict,omitempty"`
	Problem  *Problem        `json:"problem,omitempty"`
}

var verifyOperation = &huma.Operation{
	OperationID: "verify-image",
	Method:      http.MethodPost,
	Path:        "/v1/images/{ref}/verify",
	Summary:     "Read an image again and hold it against its manifest",
	Description: "The answer is one JSON object per line: progress, and at last the verdict or a problem. " +
		"A damaged image is a verdict. " +
		"An error that is found before any progress is an ordinary problem answer.",
	Parameters: []*huma.Param{
		{
			Name: "ref", In: "path", Required: true, Description: "name or id",
			Schema: &huma.Schema{Type: huma.TypeString},
		},
	},
	Responses: map[string]*huma.Response{
		"200": {
			Description: "Progress, then the verdict or a problem",
			Content:     map[string]*huma.MediaType{"application/x-ndjson": {}},
		},
	},
}

func (s *Server) verifyImage(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := whileServing(r)
	defer cancel()
	lines := &lineWriter{w: w}
	verdict, err := s.images.Verify(ctx, r.PathValue("ref"), func(p store.Progress) {
		lines.send(VerifyLine{Progress: &p})
	})
	switch {
	case err != nil && !lines.any:
		return err
	case err != nil:
		lines.send(VerifyLine{Problem: problemOf(err)})
		return nil
	case verdict.Damaged > 0:
		s.log.Error("image is damaged", "image", verdict.Image.Name, "id", verdict.Image.ID,
			"chunks", verdict.Damaged, "first", verdict.Damage[0].Reason)
	}
	lines.send(VerifyLine{Verdict: &verdict})
	return nil
}

func queryParam(name, doc, typ string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: typ}}
}

func (s *Server) importImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	opt := store.ImportOptions{
		Name: q.Get("name"), Format: q.Get("format"), SHA256: q.Get("sha256"), SHA512: q.Get("sha512"),
		Force: q.Get("force") == "true", Size: max(r.ContentLength, 0), By: actorOf(r.Context()),
	}
	if opt.Name == "" {
		return invalid("name is missing: an image needs a name in the catalogue")
	}
	if v := q.Get("size"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return invalid("size %q: want a number of bytes", v)
		}
		opt.Size = n
	}
	// Answer while the body still comes in.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		return err
	}
	lines := &lineWriter{w: w}
	opt.Progress = func(p store.Progress) { lines.send(ImportLine{Progress: &p}) }
	img, err := s.images.Import(r.Context(), r.Body, opt)
	if err != nil {
		err = importProblem(err)
		s.log.Warn("image import failed", "image", opt.Name, "actor", actorOf(r.Context()), "err", err)
		if !lines.any {
			return err
		}
		lines.send(ImportLine{Problem: problemOf(err)})
		return nil
	}
	lines.send(ImportLine{Image: &img})
	return nil
}

// importProblem tells what is wrong with the image from what is wrong with the appliance.
func importProblem(err error) error {
	_, ours := errors.AsType[*fs.PathError](err)
	switch _, known := errors.AsType[*inventory.Problem](err); {
	case known || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return &inventory.Problem{
			Code: inventory.CodeInternal, Detail: err.Error(), Err: err,
			Hint: "free space in the appliance's data directory; `pxectl image list` shows what takes it",
		}
	case ours:
		return err
	case errors.Is(err, store.ErrUnfit):
		return &inventory.Problem{
			Code: inventory.CodeInvalid, Detail: err.Error(), Err: err,
			Hint: "import the image of a whole disk; `pxectl image import --force` keeps this one " +
				"all the same, but nothing is deployed from it",
		}
	}
	return &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error(), Err: err}
}

// lineWriter sends JSON lines, each at once.
type lineWriter struct {
	w   http.ResponseWriter
	any bool // a line was sent
}

// send needs no error: a caller that went away ends the request's context, and with it the work.
func (l *lineWriter) send(line any) {
	if !l.any {
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("Cache-Control", "no-store")
		l.any = true
	}
	_ = json.NewEncoder(l.w).Encode(line)
	_ = http.NewResponseController(l.w).Flush()
}
